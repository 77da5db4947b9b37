// The second bodies of the words of ptx_sm90.cuh.
