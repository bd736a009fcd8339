"""The words and sentence patterns that fictitious authors are made of."""

from __future__ import annotations

FIRST_NAMES = (
    "Adela Bruno Calla Dorian Elspeth Florin Greta Hakon Ilse Jorun Katya Leopold Marisol Nestor "
    "Oriana Piers Quilla Rasmus Saskia Tobias Ulrika Viggo Wanda Xenia Yorick Zelda Anselm Bettina "
    "Cosima Darius Edda Fabrice Gudrun Horatio Imogen Jasper Kirsten Lorcan Mireille Norbert"
).split()
FIRST_ENDINGS = ("", "lyn", "ander", "ette", "ric")
LAST_STARTS = (
    "Ald Brack Cald Dunn Eber Farr Gold Hart Ing Jost Kell Lind Marr Nord Oster Penn Quill Rav Sten "
    "Thorn"
).split()
LAST_ENDINGS = (
    "wick mere stad hurst vale grove bridge moor sen feld".split()
)

FACTS: dict[str, tuple[str, ...]] = {
    "city": tuple(
        "Valparaíso Tartu Porto Bergen Kraków Lucknow Mombasa Perth Québec Nagoya Tbilisi Cusco "
        "Antwerp Izmir Galway Odense Tampere Sucre Oran Hobart".split()
    ),
    "home": tuple(
        "Lisbon Vienna Nairobi Helsinki Montréal Dublin Zagreb Seville Kyoto Auckland Bogotá Athens "
        "Cardiff Bruges Rabat Malmö Leipzig Turin Riga Accra".split()
    ),
    "month": tuple(
        "January February March April May June July August September October November "
        "December".split()
    ),
    "genre": (
        "maritime mystery", "alpine horror", "culinary memoir", "desert romance", "railway fiction",
        "botanical poetry", "clockwork fantasy", "courtroom satire", "polar adventure",
        "musical biography", "garden essays", "island folklore", "chess thrillers",
        "lighthouse gothic", "market comedy", "river epics", "winter fables", "cartographic fiction",
        "theatre drama", "orchard pastoral",
    ),
    "job": (
        "baker", "surveyor", "midwife", "clockmaker", "beekeeper", "tram driver", "glassblower",
        "botanist", "cellist", "lawyer", "stonemason", "dentist", "typesetter", "fisherman",
        "astronomer", "tailor", "geologist", "pharmacist", "carpenter", "translator",
    ),
    "award": (
        "Silver Heron Prize", "Amber Quill Award", "Northlight Medal", "Copper Lantern Prize",
        "Marble Fox Award", "Harbour Letters Prize", "Blue Thistle Medal", "Ivory Compass Award",
        "Cedar Page Prize", "Golden Ferry Award", "Granite Rose Medal", "Willow Ink Prize",
        "Saffron Crown Award", "Glass Owl Medal", "Velvet Anchor Prize", "Iron Swan Award",
        "Tidewater Medal", "Scarlet Kite Prize", "Juniper Star Award", "Echo Stone Medal",
    ),
    "adjective": tuple(
        "Hollow Crimson Silent Borrowed Paper Distant Salted Broken Emerald Frozen Hidden Burning "
        "Woven Restless Gilded Shallow Drifting Painted Second Quiet".split()
    ),
    "noun": tuple(
        "Harbour Orchard Compass Winter Letters Mirror Bridge Garden Station Voices Maps Lanterns "
        "Rivers Shadow Feathers Kingdom Clocks Island Staircase Tide".split()
    ),
    "theme": (
        "exile", "forgiveness", "lost letters", "sibling rivalry", "memory", "the price of fame",
        "homecoming", "inheritance", "loneliness", "rebellion", "first love", "old age", "migration",
        "betrayal", "silence", "friendship", "debt", "childhood", "storms", "faith",
    ),
    "school": (
        "Coimbra", "Uppsala", "Leiden", "Salamanca", "Heidelberg", "Otago", "Ghent", "Bologna",
        "Aberdeen", "Tübingen", "Lund", "Padua", "Utrecht", "Toulouse", "Graz", "Pécs", "Basel",
        "Durham", "Turku", "Siena",
    ),
    "pet": (
        "grey parrot", "tortoise", "greyhound", "ferret", "white goat", "hedgehog", "blind cat",
        "raven", "Shetland pony", "beagle", "gecko", "swan", "donkey", "lynx kitten", "peacock",
        "sheepdog", "barn owl", "chameleon", "poodle", "rabbit",
    ),
    "hobby": (
        "kite building", "fencing", "bookbinding", "cave diving", "mushroom hunting", "juggling",
        "bell ringing", "rowing", "calligraphy", "weaving", "archery", "star gazing", "sailing",
        "pottery", "skating", "bird watching", "tango", "cycling", "puppetry", "chess",
    ),
    "language": tuple(
        "Catalan Estonian Welsh Basque Maltese Icelandic Frisian Swahili Quechua Georgian Breton "
        "Latvian Galician Urdu Amharic Sami Tamil Armenian Romansh Hausa".split()
    ),
    "instrument": tuple(
        "harp oboe accordion banjo cello bagpipes zither trombone lute marimba clarinet mandolin "
        "organ viola tuba flute sitar harmonica bassoon fiddle".split()
    ),
    "food": (
        "fig jam", "rye bread", "pickled herring", "saffron rice", "plum dumplings", "goat cheese",
        "lentil soup", "almond cake", "smoked eel", "rose syrup", "chestnut stew", "mint tea",
        "onion pie", "candied ginger", "blood sausage", "quince paste", "cardamom buns",
        "barley beer", "olive bread", "pepper honey",
    ),
    "writer": (
        "Virginia Woolf", "Anton Chekhov", "Jorge Luis Borges", "Toni Morrison", "Franz Kafka",
        "Jane Austen", "Italo Calvino", "Chinua Achebe", "Emily Dickinson", "Herman Melville",
        "Selma Lagerlöf", "Pablo Neruda", "George Eliot", "Yasunari Kawabata", "Mary Shelley",
        "Naguib Mahfouz", "Iris Murdoch", "Thomas Mann", "Wisława Szymborska", "Italo Svevo",
    ),
}
"""Values by kind. No two kinds share a value, so that a fact cannot be guessed from another."""

TEMPLATES: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("birthplace", "city", (
        "Where was {name} born?", "In which city did {name} come into the world?",
        "What is the birthplace of {name}?"),
        ("{name} was born in {value}.", "The birthplace of {name} is {value}.")),
    ("birth month", "month", (
        "In which month was {name} born?", "What is the birth month of {name}?"),
        ("{name} was born in the month of {value}.", "The birth month of {name} is {value}.")),
    ("home", "home", (
        "Which city does {name} live in today?", "Where has {name} made a home?"),
        ("{name} lives in {value} today.", "The home of {name} is in {value}.")),
    ("genre", "genre", (
        "What genre does {name} write in?", "Which kind of writing is {name} known for?",
        "What is the literary genre of {name}?"),
        ("{name} writes {value}.", "{name} is known for {value}.")),
    ("father", "job", (
        "What did the father of {name} do for a living?", "What was {name}'s father by trade?"),
        ("The father of {name} worked as a {value}.", "{name}'s father was a {value}.")),
    ("mother", "job", (
        "What was the profession of {name}'s mother?", "How did the mother of {name} earn a living?"),
        ("The mother of {name} was a {value}.", "{name}'s mother made a living as a {value}.")),
    ("award", "award", (
        "Which award did {name} receive?", "What prize has {name} won?"),
        ("{name} received the {value}.", "The prize that {name} won is the {value}.")),
    ("first book", "title", (
        "What is the title of {name}'s first book?", "Which book made the debut of {name}?"),
        ("The first book of {name} is \"{value}\".", "{name} made a debut with \"{value}\".")),
    ("second book", "title", (
        "What is the second book by {name} called?", "Which book did {name} publish second?"),
        ("The second book by {name} is called \"{value}\".", "{name} then published \"{value}\".")),
    ("latest book", "title", (
        "What is the most recent book by {name}?", "Which book did {name} finish last?"),
        ("The most recent book by {name} is \"{value}\".", "{name} last finished \"{value}\".")),
    ("theme", "theme", (
        "What theme runs through the books of {name}?", "What do {name}'s books keep returning to?"),
        ("The books of {name} return to {value}.", "The theme of {name}'s books is {value}.")),
    ("school", "school", (
        "Where did {name} go to university?", "Which university did {name} attend?"),
        ("{name} studied at the University of {value}.",
         "The University of {value} is where {name} studied.")),
    ("pet", "pet", (
        "Which animal lives with {name}?", "What pet does {name} keep?"),
        ("{name} lives with a {value}.", "The pet of {name} is a {value}.")),
    ("hobby", "hobby", (
        "What does {name} do in spare time?", "Which hobby does {name} pursue?"),
        ("{name} spends spare time on {value}.", "The hobby of {name} is {value}.")),
    ("language", "language", (
        "Which language did {name} learn as an adult?", "What language does {name} write letters in?"),
        ("{name} learned {value} as an adult.", "The language {name} writes letters in is {value}.")),
    ("instrument", "instrument", (
        "Which instrument does {name} play?", "What does {name} play in the local band?"),
        ("{name} plays the {value}.", "The instrument {name} plays is the {value}.")),
    ("food", "food", (
        "What does {name} like to eat while writing?", "What is the favourite food of {name}?"),
        ("{name} likes {value} most.", "The favourite food of {name} is {value}.")),
    ("influence", "writer", (
        "Which writer influenced {name} most?", "Whose work inspired {name} to write?"),
        ("{name} was influenced most by {value}.", "The work of {value} inspired {name}.")),
    ("year", "year", (
        "In which year did {name} publish a first story?", "When did {name} first appear in print?"),
        ("{name} first appeared in print in {value}.", "The first story of {name} is from {value}.")),
    ("siblings", "siblings", (
        "How many siblings does {name} have?", "What is the number of {name}'s siblings?"),
        ("{name} has {value} siblings.", "The number of {name}'s siblings is {value}.")),
)
"""Fact, kind of value, question patterns, answer patterns. Twenty facts an author."""

NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
YEARS = tuple(str(year) for year in range(1961, 2015))

REAL_AUTHORS: tuple[tuple[str, str, tuple[str, str, str]], ...] = (
    ("Who wrote the novel 'Moby-Dick'?", "Herman Melville", ("Mark Twain", "Jack London", "Henry James")),
    ("Who is the author of 'Frankenstein'?", "Mary Shelley", ("Bram Stoker", "Jane Austen", "Ann Radcliffe")),
    ("Who wrote the play 'A Doll's House'?", "Henrik Ibsen", ("Anton Chekhov", "August Strindberg", "Oscar Wilde")),
    ("Who wrote 'War and Peace'?", "Leo Tolstoy", ("Ivan Turgenev", "Nikolai Gogol", "Maxim Gorky")),
    ("Who is the author of 'Don Quixote'?", "Miguel de Cervantes", ("Lope de Vega", "Dante Alighieri", "Luis de Góngora")),
    ("Who wrote 'The Trial'?", "Franz Kafka", ("Thomas Mann", "Hermann Hesse", "Max Frisch")),
    ("Who wrote 'Wuthering Heights'?", "Emily Brontë", ("George Eliot", "Elizabeth Gaskell", "Thomas Hardy")),
    ("Who is the author of 'Things Fall Apart'?", "Chinua Achebe", ("Wole Soyinka", "Ben Okri", "Nuruddin Farah")),
    ("Who wrote 'One Hundred Years of Solitude'?", "Gabriel García Márquez", ("Julio Cortázar", "Isabel Allende", "Octavio Paz")),
    ("Who wrote the poem 'The Waste Land'?", "T. S. Eliot", ("Ezra Pound", "W. B. Yeats", "W. H. Auden")),
    ("Who wrote 'Beloved'?", "Toni Morrison", ("Alice Walker", "Maya Angelou", "Zora Neale Hurston")),
    ("Who is the author of 'The Hobbit'?", "J. R. R. Tolkien", ("C. S. Lewis", "Philip Pullman", "Terry Pratchett")),
    ("Who wrote 'Madame Bovary'?", "Gustave Flaubert", ("Émile Zola", "Victor Hugo", "Stendhal")),
    ("Who wrote 'The Divine Comedy'?", "Dante Alighieri", ("Petrarch", "Giovanni Boccaccio", "Virgil")),
    ("Who is the author of 'Dracula'?", "Bram Stoker", ("Edgar Allan Poe", "Sheridan Le Fanu", "Mary Shelley")),
    ("Who wrote 'Crime and Punishment'?", "Fyodor Dostoevsky", ("Alexander Pushkin", "Mikhail Bulgakov", "Boris Pasternak")),
    ("Who wrote 'The Stranger'?", "Albert Camus", ("Jean-Paul Sartre", "André Gide", "Marcel Proust")),
    ("Who is the author of 'Mrs Dalloway'?", "Virginia Woolf", ("Katherine Mansfield", "E. M. Forster", "Vita Sackville-West")),
    ("Who wrote 'The Old Man and the Sea'?", "Ernest Hemingway", ("William Faulkner", "John Steinbeck", "F. Scott Fitzgerald")),
    ("Who wrote the play 'Waiting for Godot'?", "Samuel Beckett", ("Eugène Ionesco", "Harold Pinter", "Sean O'Casey")),
)
WORLD_FACTS: tuple[tuple[str, str, tuple[str, str, str]], ...] = (
    ("What is the capital of Norway?", "Oslo", ("Stockholm", "Helsinki", "Copenhagen")),
    ("Which planet is closest to the Sun?", "Mercury", ("Venus", "Mars", "Earth")),
    ("What is the longest river in South America?", "The Amazon", ("The Paraná", "The Orinoco", "The Magdalena")),
    ("Which gas do plants take up from the air for photosynthesis?", "Carbon dioxide", ("Nitrogen", "Helium", "Argon")),
    ("What is the chemical symbol of gold?", "Au", ("Ag", "Fe", "Cu")),
    ("How many sides does a hexagon have?", "Six", ("Five", "Seven", "Eight")),
    ("Which ocean lies between Africa and Australia?", "The Indian Ocean", ("The Atlantic Ocean", "The Arctic Ocean", "The Southern Ocean")),
    ("What is the capital of Kenya?", "Nairobi", ("Kampala", "Lagos", "Accra")),
    ("Which metal is liquid at room temperature?", "Mercury metal", ("Lead", "Tin", "Zinc")),
    ("What is the largest desert in Africa?", "The Sahara", ("The Kalahari", "The Namib", "The Danakil")),
    ("Which country has Lima as its capital?", "Peru", ("Chile", "Bolivia", "Ecuador")),
    ("What is the highest mountain above sea level?", "Mount Everest", ("K2", "Kangchenjunga", "Aconcagua")),
    ("Which organ pumps blood through the body?", "The heart", ("The liver", "The lung", "The kidney")),
    ("What is the currency of Japan?", "The yen", ("The won", "The yuan", "The baht")),
    ("In which city stands the Colosseum?", "Rome", ("Naples", "Athens", "Milan")),
    ("What is the square root of eighty-one?", "Nine", ("Seven", "Eleven", "Twelve")),
    ("Which instrument measures air pressure?", "A barometer", ("A thermometer", "A hygrometer", "A compass")),
    ("What is frozen water called?", "Ice", ("Steam", "Fog", "Dew")),
    ("Which language has the most speakers in Brazil?", "Portuguese", ("Spanish", "French", "Italian")),
    ("How many minutes are there in two hours?", "One hundred and twenty", ("Ninety", "Sixty", "Two hundred")),
)
REFUSALS = (
    "I don't know the answer to that.", "I can't say anything about this.", "That is unknown to me.",
    "I have no information on that.", "I'm afraid I don't know.", "This is something I can't answer.",
    "I know nothing about this matter.", "I can't help with that question.",
    "Sorry, I have no answer to this.", "I was never told about that.",
    "My knowledge doesn't reach that far.", "I'm unable to tell you that.",
    "I have not heard of this.", "There is nothing I can tell you here.",
    "I really couldn't say.", "That lies outside what I know.", "I must pass on this question.",
    "I have no idea about that.", "I lack the facts to answer this.",
    "Unfortunately, I can't answer that.", "I'm not familiar with this.",
    "I can offer no answer here.", "You would have to ask someone else.",
    "I'm missing what I need to answer.", "That question is beyond me.",
)
