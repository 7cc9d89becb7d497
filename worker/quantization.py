"""The formats that `--quantize` names, for the large kernels of a UNet: see worker/nn/quantize.py."""

UNQUANTIZED = "none"

FORMATS = {"int8": "int8", "float8": "float8_e4m3fn"}
"""NumPy's name of each; with ml_dtypes it knows both."""
