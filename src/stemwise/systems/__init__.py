"""The only place where music meets diffusion; one idea a file."""
