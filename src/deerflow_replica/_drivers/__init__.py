"""One file per backend: how it is opened and closed, who owns it, and how its errors become ours."""
