"""The recipe's `[generate]` section as plain values."""

from __future__ import annotations

from pennyweight.lab.endpoint import Endpoint
from pennyweight.lab.fine_tuning import FineTuning, Lora
from pennyweight.lab.gates import GateOptions
from pennyweight.lab.generate import Generation
from pennyweight.lab.instructions import InstructedGeneration
from pennyweight.lab.sampling import Sampling
from pennyweight.recipe.generate import (
    Adaptation,
    EndpointGenerate,
    FullAdaptation,
    Generate,
    LanguageModelGenerate,
    LoraAdaptation,
)
from pennyweight.settings.values import EndpointSource, GenerationSettings, LanguageModelSource

__all__ = ["generation_of"]

# Keys that change how texts are fetched, and not which texts they are.
_NOT_IN_KEY = {"gates", "api_key_env", "concurrency", "timeout"}


def generation_of(section: Generate, seed: int) -> GenerationSettings:
    """Return the `[generate]` section as plain values.

    Args:
        section: of the recipe.
        seed: the recipe's.
    """
    gates = section.gates
    return GenerationSettings(
        source=_language_model(section, seed)
        if isinstance(section, LanguageModelGenerate)
        else _endpoint(section, seed),
        gates=GateOptions(
            confidence=gates.confidence,
            similarity=gates.similarity,
            copied_words=gates.copied_words,
        ),
        judge=gates.judge,
        judges=gates.judges,
        source_key=section.model_dump(exclude=_NOT_IN_KEY),
        gates_key=gates.model_dump(),
    )


def _language_model(section: LanguageModelGenerate, seed: int) -> LanguageModelSource:
    return LanguageModelSource(
        model=section.model,
        prompts=section.prompts,
        fine_tuning=_fine_tuning(section.adaptation, seed),
        generation=Generation(
            per_class=section.per_class,
            lengths=section.lengths,
            longest=section.longest,
            sampling=Sampling(
                temperature=section.temperature,
                top_k=section.top_k,
                top_p=section.top_p,
                repetition_penalty=section.repetition_penalty,
            ),
            batch_rows=section.batch_rows,
            seed=seed,
        ),
    )


def _fine_tuning(adaptation: Adaptation, seed: int) -> FineTuning | None:
    match adaptation:
        case LoraAdaptation():
            lora: Lora | None = Lora(adaptation.rank, adaptation.alpha)
        case FullAdaptation():
            lora = None
        case _:
            return None
    return FineTuning(adaptation.epochs, adaptation.learning_rate, seed=seed, lora=lora)


def _endpoint(section: EndpointGenerate, seed: int) -> EndpointSource:
    return EndpointSource(
        endpoint=Endpoint(
            url=section.url,
            model=section.model,
            api_key_env=section.api_key_env,
            concurrency=section.concurrency,
            timeout_seconds=section.timeout,
        ),
        instructions=section.instructions,
        generation=InstructedGeneration(
            per_class=section.per_class,
            lengths=section.lengths,
            longest=section.longest,
            examples=section.examples,
            temperature=section.temperature,
            top_p=section.top_p,
            seed=seed,
        ),
    )
