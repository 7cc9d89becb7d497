"""How jobs become images in the output. Start reading at promptmill.worker.render."""
