"""The papers of the adapter methods besides LoRA and its variants: authors, year, title, venue.

The keys are identifiers of arXiv or OpenReview, by which the methods' table names the papers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["METHOD_REFERENCES"]

_ICLR = "In *International Conference on Learning Representations*"
_ICML = "In *International Conference on Machine Learning*"
_NEURIPS = "In *Advances in Neural Information Processing Systems*"

METHOD_REFERENCES: Mapping[str, tuple[str, int, str, str]] = MappingProxyType(
    {
        "2106.10199": (
            "Ben Zaken, E.; Goldberg, Y.; Ravfogel, S.",
            2022,
            "BitFit: Simple Parameter-Efficient Fine-Tuning for Transformer-Based Masked "
            "Language-Models",
            "In *Annual Meeting of the Association for Computational Linguistics*",
        ),
        "2205.05638": (
            "Liu, H.; Tam, D.; Muqeeth, M.; Mohta, J.; Huang, T.; Bansal, M.; Raffel, C.",
            2022,
            "Few-Shot Parameter-Efficient Fine-Tuning Is Better and Cheaper than In-Context "
            "Learning",
            _NEURIPS,
        ),
        "2306.07280": (
            "Qiu, Z.; Liu, W.; Feng, H.; Xue, Y.; Feng, Y.; Liu, Z.; Zhang, D.; Weller, A.; "
            "Schölkopf, B.",
            2023,
            "Controlling Text-to-Image Diffusion by Orthogonal Finetuning",
            _NEURIPS,
        ),
        "2306.07967": (
            "Chavan, A.; Liu, Z.; Gupta, D.; Xing, E.; Shen, Z.",
            2023,
            "One-for-All: Generalized LoRA for Parameter-Efficient Fine-Tuning",
            "arXiv:2306.07967",
        ),
        "2309.14859": (
            "Yeh, S.-Y.; Hsieh, Y.-G.; Gao, Z.; Yang, B. B. W.; Oh, G.; Gong, Y.",
            2024,
            "Navigating Text-to-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation",
            _ICLR,
        ),
        "2311.06243": (
            "Liu, W.; Qiu, Z.; Feng, Y.; Xiu, Y.; Xue, Y.; Yu, L.; Feng, H.; Liu, Z.; Heo, J.; "
            "Peng, S.; Wen, Y.; Black, M. J.; Weller, A.; Schölkopf, B.",
            2024,
            "Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization",
            _ICLR,
        ),
        "2312.11420": (
            "Zhao, B.; Tu, H.; Wei, C.; Mei, J.; Xie, C.",
            2024,
            "Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM Finetuning",
            _ICLR,
        ),
        "2405.03003": (
            "Gao, Z.; Wang, Q.; Chen, A.; Liu, Z.; Wu, B.; Chen, L.; Li, J.",
            2024,
            "Parameter-Efficient Fine-Tuning with Discrete Fourier Transform",
            _ICML,
        ),
        "2405.15179": (
            "Li, Y.; Han, S.; Ji, S.",
            2024,
            "VB-LoRA: Extreme Parameter Efficient Fine-Tuning with Vector Banks",
            _NEURIPS,
        ),
        "2405.17484": (
            "Yuan, S.; Liu, H.; Xu, H.",
            2024,
            "Bridging the Gap between Low-Rank and Orthogonal Adaptation via Householder "
            "Reflection Adaptation",
            _NEURIPS,
        ),
        "2406.13175": (
            "Bhardwaj, K.; Pandey, N. P.; Priyadarshi, S.; Ganapathy, V.; Kadambi, S.; "
            "Esteves, R.; Borse, S.; Whatmough, P.; Garrepalli, R.; van Baalen, M.; Teague, H.; "
            "Nagel, M.",
            2024,
            "Sparse High Rank Adapters",
            _NEURIPS,
        ),
        "2407.19342": (
            "Chen, A.; Cheng, J.; Liu, Z.; Gao, Z.; Tsung, F.; Li, Y.; Li, J.",
            2025,
            "Parameter-Efficient Fine-Tuning via Circular Convolution",
            "arXiv:2407.19342",
        ),
        "2409.00119": (
            "Liao, B.; Monz, C.",
            2024,
            "3-in-1: 2D Rotary Adaptation for Efficient Finetuning, Efficient Batching and "
            "Composability",
            _NEURIPS,
        ),
        "2409.15371": (
            "Kang, J.; Yin, Q.",
            2024,
            "MiSS: Revisiting the Trade-Off in LoRA with an Efficient Shard-Sharing Structure",
            "arXiv:2409.15371",
        ),
        "2410.01870": (
            "Zhong, Y.; Jiang, H.; Li, L.; Nakada, R.; Liu, T.; Zhang, L.; Yao, H.; Wang, H.",
            2024,
            "PEANuT: Parameter-Efficient Adaptation with Weight-Aware Neural Tweakers",
            "arXiv:2410.01870",
        ),
        "2502.00987": (
            "Albert, P.; Zhang, F. Z.; Saratchandran, H.; Rodriguez-Opazo, C.; "
            "van den Hengel, A.; Abbasnejad, E.",
            2025,
            "RandLoRA: Full-Rank Parameter-Efficient Fine-Tuning of Large Models",
            _ICLR,
        ),
        "2503.18225": (
            "Bini, M.; Girrbach, L.; Akata, Z.",
            2025,
            "Decoupling Angles and Strength in Low-Rank Adaptation",
            _ICLR,
        ),
        "2504.07097": (
            "Nayak, N. S.; Killamsetty, K.; Han, L.; Bhandwaldar, A.; Chanda, P.; Xu, K.; "
            "Wang, H.; Pareja, A.; Silkin, O.; Eyceoz, M.; Srivastava, A.",
            2025,
            "Sculpting Subspaces: Constrained Full Fine-Tuning in LLMs for Continual Learning",
            "arXiv:2504.07097",
        ),
        "2505.11235": (
            "Wu, F.; Hu, J.; Min, G.; Wang, S.",
            2026,
            "Efficient Orthogonal Fine-Tuning with Principal Subspace Adaptation",
            _ICLR,
        ),
        "2505.12532": (
            "Bilican, A.; Y\N{LATIN SMALL LETTER DOTLESS I}lmaz, M. A.; Tekalp, A. M.; "
            "Cinbiş, R. G.",
            2025,
            "Exploring Sparsity for Parameter Efficient Fine Tuning Using Wavelets",
            "arXiv:2505.12532",
        ),
        "2505.20355": (
            "Jung, Y.; Ahn, D.; Kim, H.; Kim, T.; Park, E.",
            2025,
            "GraLoRA: Granular Low-Rank Adaptation for Parameter-Efficient Fine-Tuning",
            _NEURIPS,
        ),
        "2506.00799": (
            "Li, K.; Han, S.; Su, Q.; Li, W.; Cai, Z.; Ji, S.",
            2025,
            "Uni-LoRA: One Vector Is All You Need",
            _NEURIPS,
        ),
        "2509.15974": (
            "Huang, B.; Balashankar, A.; Aminifar, A.",
            2026,
            "BEFT: Bias-Efficient Fine-Tuning of Language Models in Low-Data Regimes",
            "In *Annual Meeting of the Association for Computational Linguistics*",
        ),
        "2509.22793": (
            "Kumar, K.; Anwer, R. M.; Khan, F. S.; Khan, S.; Laptev, I.; Cholakkal, H.",
            2025,
            "DEFT: Decompositional Efficient Fine-Tuning for Text-to-Image Models",
            _NEURIPS,
        ),
        "2512.07703": (
            "Fillioux, L.; Ferrante, E.; Cournède, P.-H.; Vakalopoulou, M.; Christodoulidis, S.",
            2025,
            "PVeRA: Probabilistic Vector-Based Random Matrix Adaptation",
            "arXiv:2512.07703",
        ),
        "2602.04118": (
            "Morris, J. X.; Mireshghallah, N.; Ibrahim, M.; Mahloujifar, S.",
            2026,
            "Learning to Reason in 13 Parameters",
            "arXiv:2602.04118",
        ),
        "TwJrTz9cRS": (
            "Huang, Q.; Ko, T.; Zhuang, Z.; Tang, L.; Zhang, Y.",
            2025,
            "HiRA: Parameter-Efficient Hadamard High-Rank Adaptation for Large Language Models",
            _ICLR,
        ),
    }
)
