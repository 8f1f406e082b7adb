"""Compile a generated library, run it on this computer or an emulated CPU, and measure it."""
