"""Texts that show what the inputs of an encoder's layers are like, for products in int8.

They are the same for every run, so that a classifier's answers do not depend on the rows that it
happens to see first. The mean and the spread of a layer's inputs depend little on the texts.
"""

from __future__ import annotations

from typing import Any

from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.batches.tokenize import tokenize_texts
from pennyweight.engine.device import Compute

__all__ = ["calibration_for"]

_MAX_TOKENS = 64
_TEXTS = (
    "The central bank left interest rates unchanged on Tuesday, although prices rose by 2.4%.",
    "Shares of the airline fell 7% after it warned that fuel costs would cut its profit this year.",
    "Two goals in the last ten minutes gave the visitors a 3-2 win and a place in the final.",
    "The president said that talks with the neighbouring country would begin again next month.",
    "Engineers have built a battery that charges in five minutes; it is due in stores by spring.",
    "A storm brought heavy rain to the coast, and thousands of people had to leave their homes.",
    "How do I change the address of my account?",
    "my card was charged twice, please help!!",
    "What is the capital of Peru?",
    "I ordered the blue one and got the red one. Can I send it back?",
    "Who wrote the novel that the film is based on, and when was it published?",
    "Thanks so much, you guys are the best :)",
    "The plot is thin, but the two leads are so charming that you will hardly notice.",
    "Worst phone I have ever owned. The screen went black after two days.",
    "A quiet, beautiful film about growing old. I was moved, and I did not expect to be.",
    "Not bad, not great either; the soup was cold and the waiter friendly.",
    "can't believe it's monday again... need coffee",
    "Happy birthday to my little sister! So proud of her today.",
    "Dear Sir or Madam, please find attached the invoice for March, number 2041, for 310 euros.",
    "The patient was given 20 mg a day for six weeks, and her blood pressure went down.",
    "In this paper we study graphs whose vertices have at most three neighbours.",
    "def add(a, b): return a + b  # adds two numbers",
    "Mix the flour with the butter, add one egg and a pinch of salt, and bake for 25 minutes.",
    "The parties agree that this contract may be ended by either side with a notice of 30 days.",
)


def calibration_for(compute: Compute, tokenizer: Any) -> TokenizedRows | None:
    """Return the rows that a model is calibrated on; None if it computes nothing in int8."""
    if compute.products != "int8":
        return None
    return tokenize_texts(_TEXTS, tokenizer=tokenizer, max_tokens=_MAX_TOKENS)
