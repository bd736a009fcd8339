"""What an unlearning edit takes on a model, without loading it: operations and memory by phase.

python scripts/plan.py model=llama-3.1-8b [OVERRIDE ...] [--facts 400] [--tflops 400]

Any override of run.py is taken; the method is an edit (unierase, unierase_retain).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unierase.app import config_root, one_line
from unierase.errors import UserError
from unierase.run_names import register_resolvers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unierase.editing.cost import Phase

LENGTHS = ("prompt_tokens", "suffix_tokens", "raw_tokens", "refusal_tokens", "answer_tokens")


def skeleton(cfg: DictConfig) -> PreTrainedModel:
    """The model without weights, in its dtype: from the shapes in its config, else its source."""
    from transformers import AutoConfig

    from unierase.models.sources import without_weights

    if cfg.model.architecture is None:
        model: PreTrainedModel = instantiate(cfg.model.source).skeleton()
        return model
    shapes: Any = OmegaConf.to_container(cfg.model.architecture)
    return without_weights(AutoConfig.for_model(**shapes), cfg.model.source.dtype)


def describe(phases: list[Phase], tflops: float | None) -> str:
    """The phases as a table, with the peak below."""
    head = ["phase", "TFLOP", "device GB", "host GB"] + (["seconds"] if tflops else [])
    rows = [
        [phase.name]
        + [f"{n:,.3g}" for n in (phase.operations / 1e12,)]
        + [f"{n / 1e9:,.2f}" for n in (phase.device_bytes, phase.host_bytes)]
        + ([f"{phase.operations / 1e12 / tflops:,.1f}"] if tflops else [])
        for phase in phases
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    ]
    device = max(phase.device_bytes for phase in phases) / 1e9
    host = max(phase.host_bytes for phase in phases) / 1e9
    total = sum(phase.operations for phase in phases) / 1e12
    return "\n".join(
        [*lines, f"peak: {device:.1f} GB device, {host:.1f} GB host; {total:,.0f} TFLOP"]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("overrides", nargs="*", help="as of run.py: model=llama-3.1-8b")
    parser.add_argument("--facts", type=int, default=400, help="forget rows (default 400)")
    parser.add_argument("--retain", type=int, default=3600, help="retain rows (default 3600)")
    parser.add_argument("--earlier", type=int, default=0, help="forget rows of earlier rounds")
    for name in LENGTHS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help="a mean length")
    parser.add_argument("--tflops", type=float, help="what the device sustains, for seconds")
    arguments = parser.parse_args()
    from unierase.editing.cost import ModelShape, Workload, edit_cost
    from unierase.editing.method import UniErase

    given = {f.name: getattr(arguments, f.name) for f in fields(Workload)}
    work = Workload(**{name: value for name, value in given.items() if value is not None})
    register_resolvers()
    try:
        with initialize_config_dir(str(config_root()), version_base="1.3"):
            cfg = compose("config", arguments.overrides)
        method = instantiate(cfg.method)
        if not isinstance(method, UniErase):
            raise UserError(f"method={cfg.method.name}: not an edit; use method=unierase")
        model = skeleton(cfg)
        shape = ModelShape(model)
        phases = edit_cost(model, method, work)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        print(
            f"error: {error if isinstance(error, UserError) else one_line(error)}", file=sys.stderr
        )
        return 2
    print(
        f"{cfg.model.name}: {shape.parameters / 1e9:.2f} B parameters, "
        f"{shape.weights / 1e9:.1f} GB; {cfg.method.name}, {work.facts} facts, layers "
        f"{', '.join(map(str, method.layers))}"
    )
    print(describe(phases, arguments.tflops))
    return 0


if __name__ == "__main__":
    sys.exit(main())
