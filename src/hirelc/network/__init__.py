"""What a network is: its kernels, blocks, coupled dimensions, and what is left untouched and why."""
