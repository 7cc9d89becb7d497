"""Checkpoints of other kinds into plain model folders: `promptmill import-model`. Start reading at build.py.

The only place that uses PyTorch and diffusers; no running worker imports it. What reads names and headers only
(files.py, request.py) needs neither.
"""
