"""The papers that a report may cite, and their form in a list of references (AAAI style)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from pennyweight.budget.methods import METHODS
from pennyweight.report.method_references import METHOD_REFERENCES

__all__ = ["REFERENCES", "Reference", "citation", "combination_keys", "method_keys"]

_IDENTIFIER = re.compile(r"(?:arXiv:|openreview\.net/forum\?id=)([\w.]+)")


@dataclass(frozen=True, slots=True)
class Reference:
    """One entry of a list of references.

    Attributes:
        authors: family name, comma and initials of each author, in order.
        year: year of publication.
        title: title of the paper.
        venue: where it appeared, with the venue's name between asterisks, which set it in italics.
    """

    authors: tuple[str, ...]
    year: int
    title: str
    venue: str

    @property
    def entry(self) -> str:
        """The entry: authors, year, title and venue."""
        *others, last = self.authors
        names = f"{'; '.join(others)}; and {last}" if others else last
        return f"{names.removesuffix('.')}. {self.year}. {self.title}. {self.venue}."

    @property
    def short(self) -> str:
        """The form inside a citation, such as "Hu et al. 2022"."""
        names = [author.split(",")[0] for author in self.authors]
        match names:
            case [one]:
                text = one
            case [one, two]:
                text = f"{one} and {two}"
            case [one, two, three]:
                text = f"{one}, {two}, and {three}"
            case _:
                text = f"{names[0]} et al."
        return f"{text} {self.year}"


def _reference(authors: str, year: int, title: str, venue: str) -> Reference:
    return Reference(tuple(authors.split("; ")), year, title, venue)


_ICLR = "In *International Conference on Learning Representations*"
_ICML = "In *International Conference on Machine Learning*"
_NEURIPS = "In *Advances in Neural Information Processing Systems*"

# Keys are identifiers of arXiv or OpenReview where there is one, because the methods' table names
# papers by them.
REFERENCES: Mapping[str, Reference] = MappingProxyType(
    {key: _reference(*entry) for key, entry in METHOD_REFERENCES.items()}
    | {
        "2106.09685": _reference(
            "Hu, E. J.; Shen, Y.; Wallis, P.; Allen-Zhu, Z.; Li, Y.; Wang, S.; Wang, L.; Chen, W.",
            2022,
            "LoRA: Low-Rank Adaptation of Large Language Models",
            _ICLR,
        ),
        "2312.03732": _reference(
            "Kalajdzievski, D.",
            2023,
            "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA",
            "arXiv:2312.03732",
        ),
        "2402.09353": _reference(
            "Liu, S.-Y.; Wang, C.-Y.; Yin, H.; Molchanov, P.; Wang, Y.-C. F.; Cheng, K.-T.; "
            "Chen, M.-H.",
            2024,
            "DoRA: Weight-Decomposed Low-Rank Adaptation",
            _ICML,
        ),
        "2308.03303": _reference(
            "Zhang, L.; Zhang, L.; Shi, S.; Chu, X.; Li, B.",
            2023,
            "LoRA-FA: Memory-Efficient Low-Rank Adaptation for Large Language Models Fine-Tuning",
            "arXiv:2308.03303",
        ),
        "2303.10512": _reference(
            "Zhang, Q.; Chen, M.; Bukharin, A.; Karampatziakis, N.; He, P.; Cheng, Y.; Chen, W.; "
            "Zhao, T.",
            2023,
            "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning",
            _ICLR,
        ),
        "2310.11454": _reference(
            "Kopiczko, D. J.; Blankevoort, T.; Asano, Y. M.",
            2024,
            "VeRA: Vector-Based Random Matrix Adaptation",
            _ICLR,
        ),
        "2108.06098": _reference(
            "Hyeon-Woo, N.; Ye-Bin, M.; Oh, T.-H.",
            2022,
            "FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated Learning",
            _ICLR,
        ),
        "2203.05482": _reference(
            "Wortsman, M.; Ilharco, G.; Gadre, S. Y.; Roelofs, R.; Gontijo-Lopes, R.; "
            "Morcos, A. S.; Namkoong, H.; Farhadi, A.; Carmon, Y.; Kornblith, S.; Schmidt, L.",
            2022,
            "Model Soups: Averaging Weights of Multiple Fine-Tuned Models Improves Accuracy "
            "Without Increasing Inference Time",
            _ICML,
        ),
        "2306.01708": _reference(
            "Yadav, P.; Tam, D.; Choshen, L.; Raffel, C.; Bansal, M.",
            2023,
            "TIES-Merging: Resolving Interference When Merging Models",
            _NEURIPS,
        ),
        "2311.03099": _reference(
            "Yu, L.; Yu, B.; Yu, H.; Huang, F.; Li, Y.",
            2024,
            "Language Models Are Super Mario: Absorbing Abilities from Homologous Models as a "
            "Free Lunch",
            _ICML,
        ),
        "2109.01903": _reference(
            "Wortsman, M.; Ilharco, G.; Kim, J. W.; Li, M.; Kornblith, S.; Roelofs, R.; "
            "Gontijo-Lopes, R.; Hajishirzi, H.; Farhadi, A.; Namkoong, H.; Schmidt, L.",
            2022,
            "Robust Fine-Tuning of Zero-Shot Models",
            "In *IEEE/CVF Conference on Computer Vision and Pattern Recognition*",
        ),
        "1810.04805": _reference(
            "Devlin, J.; Chang, M.-W.; Lee, K.; Toutanova, K.",
            2019,
            "BERT: Pre-Training of Deep Bidirectional Transformers for Language Understanding",
            "In *Conference of the North American Chapter of the Association for Computational "
            "Linguistics*",
        ),
        "1907.11692": _reference(
            "Liu, Y.; Ott, M.; Goyal, N.; Du, J.; Joshi, M.; Chen, D.; Levy, O.; Lewis, M.; "
            "Zettlemoyer, L.; Stoyanov, V.",
            2019,
            "RoBERTa: A Robustly Optimized BERT Pretraining Approach",
            "arXiv:1907.11692",
        ),
        "2002.10957": _reference(
            "Wang, W.; Wei, F.; Dong, L.; Bao, H.; Yang, N.; Zhou, M.",
            2020,
            "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of "
            "Pre-Trained Transformers",
            _NEURIPS,
        ),
        "1509.01626": _reference(
            "Zhang, X.; Zhao, J.; LeCun, Y.",
            2015,
            "Character-Level Convolutional Networks for Text Classification",
            _NEURIPS,
        ),
        "1706.04599": _reference(
            "Guo, C.; Pleiss, G.; Sun, Y.; Weinberger, K. Q.",
            2017,
            "On Calibration of Modern Neural Networks",
            _ICML,
        ),
        "1503.02531": _reference(
            "Hinton, G.; Vinyals, O.; Dean, J.",
            2015,
            "Distilling the Knowledge in a Neural Network",
            "arXiv:1503.02531",
        ),
        "2305.14314": _reference(
            "Dettmers, T.; Pagnoni, A.; Holtzman, A.; Zettlemoyer, L.",
            2023,
            "QLoRA: Efficient Finetuning of Quantized LLMs",
            _NEURIPS,
        ),
        "1711.05101": _reference(
            "Loshchilov, I.; Hutter, F.", 2019, "Decoupled Weight Decay Regularization", _ICLR
        ),
        "1412.6980": _reference(
            "Kingma, D. P.; Ba, J.", 2015, "Adam: A Method for Stochastic Optimization", _ICLR
        ),
        "1804.04235": _reference(
            "Shazeer, N.; Stern, M.",
            2018,
            "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
            _ICML,
        ),
        "2302.06675": _reference(
            "Chen, X.; Liang, C.; Huang, D.; Real, E.; Wang, K.; Pham, H.; Dong, X.; Luong, T.; "
            "Hsieh, C.-J.; Lu, Y.; Le, Q. V.",
            2023,
            "Symbolic Discovery of Optimization Algorithms",
            _NEURIPS,
        ),
        "2402.12354": _reference(
            "Hayou, S.; Ghosh, N.; Yu, B.",
            2024,
            "LoRA+: Efficient Low Rank Adaptation of Large Models",
            _ICML,
        ),
        "1802.03916": _reference(
            "Lipton, Z. C.; Wang, Y.-X.; Smola, A. J.",
            2018,
            "Detecting and Correcting for Label Shift with Black Box Predictors",
            _ICML,
        ),
        "muon": _reference(
            "Jordan, K.; Jin, Y.; Boza, V.; You, J.; Cesista, F.; Newhouse, L.; Bernstein, J.",
            2024,
            "Muon: An Optimizer for Hidden Layers in Neural Networks",
            "https://kellerjordan.github.io/posts/muon/",
        ),
        "peft": _reference(
            "Mangrulkar, S.; Gugger, S.; Debut, L.; Belkada, Y.; Paul, S.; Bossan, B.",
            2022,
            "PEFT: State-of-the-Art Parameter-Efficient Fine-Tuning Methods",
            "https://github.com/huggingface/peft",
        ),
        "wilson": _reference(
            "Wilson, E. B.",
            1927,
            "Probable Inference, the Law of Succession, and Statistical Inference",
            "*Journal of the American Statistical Association*, 22(158): 209\N{EN DASH}212",
        ),
        "efron": _reference(
            "Efron, B.",
            1979,
            "Bootstrap Methods: Another Look at the Jackknife",
            "*The Annals of Statistics*, 7(1): 1\N{EN DASH}26",
        ),
        "mcnemar": _reference(
            "McNemar, Q.",
            1947,
            "Note on the Sampling Error of the Difference Between Correlated Proportions or "
            "Percentages",
            "*Psychometrika*, 12(2): 153\N{EN DASH}157",
        ),
        "midp": _reference(
            "Fagerland, M. W.; Lydersen, S.; Laake, P.",
            2013,
            "The McNemar Test for Binary Matched-Pairs Data: Mid-p and Asymptotic Are Better Than "
            "Exact Conditional",
            "*BMC Medical Research Methodology*, 13: 91",
        ),
        "holm": _reference(
            "Holm, S.",
            1979,
            "A Simple Sequentially Rejective Multiple Test Procedure",
            "*Scandinavian Journal of Statistics*, 6(2): 65\N{EN DASH}70",
        ),
        "demsar": _reference(
            "Demšar, J.",
            2006,
            "Statistical Comparisons of Classifiers over Multiple Data Sets",
            "*Journal of Machine Learning Research*, 7: 1\N{EN DASH}30",
        ),
        "saerens": _reference(
            "Saerens, M.; Latinne, P.; Decaestecker, C.",
            2002,
            "Adjusting the Outputs of a Classifier to New a Priori Probabilities: "
            "A Simple Procedure",
            "*Neural Computation*, 14(1): 21\N{EN DASH}41",
        ),
    }
)


def citation(keys: Sequence[str]) -> str:
    """Return the citation of some references, such as "(Guo et al. 2017; Wilson 1927)"."""
    ordered = sorted((REFERENCES[key] for key in keys), key=lambda reference: reference.entry)
    return f"({'; '.join(reference.short for reference in ordered)})"


def combination_keys(name: str) -> tuple[str, ...]:
    """Return the keys of the papers that a row of the table of combinations names."""
    # Imported late, because the table needs torch.
    from pennyweight.model.combinations import COMBINATIONS

    paper = COMBINATIONS[name].paper if name in COMBINATIONS else ""
    return tuple(key for key in _IDENTIFIER.findall(paper) if key in REFERENCES)


def method_keys(method: str) -> tuple[str, ...]:
    """Return the keys of the papers that an adapter method's row names."""
    paper = METHODS[method].paper if method in METHODS else ""
    return tuple(key for key in _IDENTIFIER.findall(paper) if key in REFERENCES)
