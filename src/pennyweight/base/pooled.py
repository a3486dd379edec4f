"""A sequence classifier that pools the encoder's last hidden states and has a linear head.

transformers' own classifiers read the first token through layers that most checkpoints lack.
Sentence encoders are trained for the mean over all tokens instead (Reimers & Gurevych 2019,
arXiv:1908.10084). This file depends on torch and transformers alone and is saved beside a trained
classifier, so that plain transformers can load it with `trust_remote_code=True`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from transformers import MODEL_MAPPING, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

__all__ = ["PooledClassifier"]


class PooledClassifier(PreTrainedModel):
    """An encoder, a pooling of its last hidden states, and a linear layer.

    The encoder's modules have the same names as in transformers' own classifier, such as
    `bert.encoder.layer.0`.

    Args:
        config: of the encoder, with `num_labels` and, as `classifier_pooling`, "mean" for the mean
            over the tokens of a text or "cls" for its first token. With `classifier_rank`, the
            linear layer is the product of two smaller ones, which many classes may need.
    """

    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        # transformers reads these when it chooses the attention, in the next line.
        encoder_class = MODEL_MAPPING[type(config)]
        if isinstance(encoder_class, tuple):  # Funnel has a second one, without a decoder
            encoder_class = encoder_class[0]
        self._supports_sdpa = encoder_class._supports_sdpa
        self._supports_flash_attn = encoder_class._supports_flash_attn
        self._supports_attention_backend = encoder_class._supports_attention_backend
        super().__init__(config)
        encoder = _encoder(config)
        # Named as in transformers' own classifier, so that its checkpoints fit.
        self.base_model_prefix = encoder.base_model_prefix
        setattr(self, encoder.base_model_prefix, encoder)
        self.num_labels = config.num_labels
        self.classifier = _head(config)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Return the logits, `[rows, classes]`.

        Args:
            input_ids: int64 `[rows, tokens]`; None with `inputs_embeds` in `kwargs`.
            attention_mask: 1 for tokens and 0 for padding, `[rows, tokens]`; None if no row has
                padding.
            labels: class indices `[rows]`, or 0 and 1 `[rows, classes]` for several labels per
                text; the output then has a loss.
            kwargs: passed on to the encoder.
        """
        kwargs.pop("return_dict", None)
        hidden = self.base_model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)[0]
        logits = self.classifier(self._pool(hidden, attention_mask))
        return SequenceClassifierOutput(
            loss=None if labels is None else self._loss(logits, labels), logits=logits
        )

    def _pool(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        if self.config.classifier_pooling == "cls":
            return hidden[:, 0]
        if mask is None:
            return hidden.mean(dim=1)
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.config.problem_type == "multi_label_classification":
            return nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
        return nn.functional.cross_entropy(logits, labels)


def _head(config: PreTrainedConfig) -> nn.Module:
    rank = getattr(config, "classifier_rank", None)
    if rank is None:
        return nn.Linear(config.hidden_size, config.num_labels)
    down = nn.Linear(config.hidden_size, rank, bias=False)
    return nn.Sequential(OrderedDict(down=down, out=nn.Linear(rank, config.num_labels)))


def _encoder(config: PreTrainedConfig) -> PreTrainedModel:
    try:
        # The pooler of BERT's kind reads the first token only, and would never be trained.
        return AutoModel.from_config(config, add_pooling_layer=False)
    except TypeError:
        return AutoModel.from_config(config)


# Saves this file beside the weights, so that transformers' auto class finds the classifier.
PooledClassifier.register_for_auto_class("AutoModelForSequenceClassification")
