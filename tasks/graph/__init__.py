"""Graph methods that language models call as tools or read as encoders."""
