"""Where learned noise goes: by layer over time, in a plain network and in a residual one."""
