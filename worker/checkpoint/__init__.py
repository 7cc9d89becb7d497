"""What lies in a model folder: JSON configurations and safetensors. Knows no family."""
