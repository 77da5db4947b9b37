// The emulated bodies of ptx.cuh.
