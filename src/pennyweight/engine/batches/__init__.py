"""Batches: tokenized rows, packed or padded, and the cached lower layers."""
