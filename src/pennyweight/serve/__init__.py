"""HTTP over one bank: many classifiers on one frozen base, in dynamic batches."""
