"""The operations, grouped by subject; `lazygrad` and `lazygrad.nn.functional` export them."""
