"""A folder that can be pushed to the Hugging Face Hub as it is: an adapter or a merged model."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from pennyweight.budget.inspect import inspect_adapter
from pennyweight.budget.methods import METHODS
from pennyweight.errors import RunError
from pennyweight.export.anonymous import anonymous_config, anonymous_record
from pennyweight.export.hub_card import write_hub_card
from pennyweight.files import hash_file, replace_directory
from pennyweight.inference.card_usage import hub_id
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.load import require_complete
from pennyweight.inference.merge import MergeCheck, MergeReport, merge_into
from pennyweight.inference.model_card import CardMetadata
from pennyweight.runs.directory import RunDirectory, hash_artifact, require_empty, verify_artifact
from pennyweight.runs.record import BaseRecord, RunRecord, load_record, save_record, write_text

__all__ = ["FolderFile", "HubOptions", "HubReport", "export_to_hub", "require_hub_id"]

_CARD = "README.md"
# Its strings are words and not paths.
_VOCABULARY = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class HubOptions:
    """Options of a folder for the hub.

    Attributes:
        merged: whether it holds a merged model instead of an adapter.
        license_id: the license's identifier on the hub.
        base_id: the base's id on the hub; required for a base from a local directory.
        datasets: ids of the training data on the hub.
        check: how a merged model is compared with the run.
    """

    merged: bool = False
    license_id: str = "unknown"
    base_id: str | None = None
    datasets: tuple[str, ...] = ()
    check: MergeCheck = field(default_factory=MergeCheck)


@dataclass(frozen=True, slots=True)
class FolderFile:
    """A file of a folder: its name, its size, and the SHA-256 of its content."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class HubReport:
    """A folder for the hub.

    Attributes:
        files: of the folder, by name.
        parameters: trainable parameters that were counted in the written adapter; None for a
            merged model.
        merge: how a merged model compares with the run.
    """

    files: tuple[FolderFile, ...]
    parameters: int | None = None
    merge: MergeReport | None = None


def export_to_hub(
    run: str | Path, *, out: str | Path, options: HubOptions | None = None
) -> HubReport:
    """Write a folder that is ready to be pushed to the hub.

    It holds a plain PEFT adapter or a merged transformers model, the tokenizer and a model card;
    beside an adapter also the run's record, so that `Classifier.load` reads the folder. Folders of
    this machine and texts of rows are left out of everything.

    Args:
        run: the run's directory.
        out: the folder to write; it must be empty or missing.
        options: what is put into it; None for the defaults.

    Raises:
        RunError: it is no complete run, `out` is not empty, the base has no id on the hub, or the
            merged model differs from the run.
        DataError: rows to compare the merged model on cannot be read.
    """
    options = options or HubOptions()
    require_empty(Path(out))
    directory = RunDirectory(Path(run))
    record = load_record(directory.path)
    require_complete(directory.path, record)
    base_id = _base_id(record, options)
    for name in options.datasets:
        require_hub_id("--dataset", name)
    shared = _with_base(anonymous_record(record), base_id)
    is_whole = METHODS[record.recipe.adapter.method].trains_every_weight
    reports: list[HubReport] = []

    def write(folder: Path) -> None:
        if options.merged or is_whole:
            report = merge_into(folder, Classifier.load(run), options.check, name=str(out))
            _clean_json(folder)
            relation = CardMetadata(
                "transformers",
                options.license_id,
                options.datasets,
                "finetune" if is_whole else "merge",
            )
            write_hub_card(folder, shared, relation, is_merged=True)
            reports.append(HubReport(_files(folder), merge=report))
            return
        _copy_adapter(directory, record, folder, base_id=base_id)
        parameters = _count(folder, record)
        metadata = CardMetadata("peft", options.license_id, options.datasets, "adapter")
        write_hub_card(folder, shared, metadata, is_merged=False)
        hashes = hash_artifact(folder)
        files = {name: digest for name, digest in hashes.files.items() if name != _CARD}
        artifact = hashes.model_copy(update={"directory": ".", "files": files})
        save_record(folder, shared.with_changes(artifact=artifact))
        reports.append(HubReport(_files(folder), parameters=parameters))

    replace_directory(Path(out), write)
    return reports[0]


def require_hub_id(option: str, name: str) -> None:
    """Refuse what cannot be an id on the hub.

    Raises:
        RunError: it is none.
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise RunError(f"{option} {name}: expected an id on the hub, such as owner/name") from None


def _base_id(record: RunRecord, options: HubOptions) -> str:
    base_id = options.base_id or hub_id(record)
    if base_id is None:
        raise RunError(
            f"{record.recipe.base.name}: the base is a local directory, which others do not have; "
            "name the same model on the hub with --base-id OWNER/NAME"
        )
    require_hub_id("--base-id", base_id)
    if not _is_local(record) and base_id != hub_id(record):
        raise RunError(
            f"--base-id {base_id}: the base of this run is {hub_id(record)}; leave the option out"
        )
    return base_id


def _is_local(record: RunRecord) -> bool:
    """Return whether the base is a local directory."""
    return record.base is None or record.base.origin == "directory"


def _with_base(record: RunRecord, base_id: str) -> RunRecord:
    """Return a record whose base is found by its id on the hub, unless it is the embedded one."""
    if not _is_local(record):
        return record
    recipe = record.recipe
    named = recipe.model_copy(update={"base": recipe.base.model_copy(update={"name": base_id})})
    on_hub = BaseRecord(name=base_id, reference=base_id, revision=None, origin="hub")
    return record.with_changes(recipe=named, base=on_hub)


def _copy_adapter(
    directory: RunDirectory, record: RunRecord, folder: Path, *, base_id: str
) -> None:
    artifact = directory.artifact(METHODS[record.recipe.adapter.method].artifact)
    verify_artifact(directory.path, record, artifact)
    for file in sorted(artifact.iterdir()):
        if file.is_file() and file.name not in (_CARD, directory.record.name):
            shutil.copyfile(file, folder / file.name)
    config = folder / "adapter_config.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    values["base_model_name_or_path"] = base_id
    write_text(config, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    _clean_json(folder)


def _clean_json(folder: Path) -> None:
    for file in folder.glob("*.json"):
        if file.name == _VOCABULARY:
            continue
        values = json.loads(file.read_text(encoding="utf-8"))
        cleaned = anonymous_config(values)
        if cleaned != values:
            write_text(file, json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n")


def _count(folder: Path, record: RunRecord) -> int:
    """Return the trainable parameters in the written adapter.

    Raises:
        RunError: their number is not that of the record.
    """
    counted: int = inspect_adapter(folder)["trainable_parameters"]
    if record.parameters is not None and counted != record.parameters.file:
        raise RunError(
            f"{folder}: {counted:,} trainable parameters in the adapter, and the run's record says "
            f"{record.parameters.file:,}; the run's adapter was changed, train it again"
        )
    return counted


def _files(folder: Path) -> tuple[FolderFile, ...]:
    return tuple(
        FolderFile(file.relative_to(folder).as_posix(), file.stat().st_size, hash_file(file))
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    )
