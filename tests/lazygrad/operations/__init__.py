"""One record per public operation; `test_operations.py` holds each against PyTorch."""
