"""As much of DeerFlow as this package touches, for tests: DeerFlow itself cannot be installed from a package index.

The names, fields and signatures are DeerFlow's; a test puts this folder's parent on `sys.path` while it runs.
"""
