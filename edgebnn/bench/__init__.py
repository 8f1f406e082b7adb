"""Kernels beside the same layers in int8 and in float, counted on emulated CPUs."""
