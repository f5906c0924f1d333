"""Data: seqio declares tasks and mixtures, `prepare` writes token caches, grain reads them. The only room with tensorflow.

Importing any file here loads no tensorflow; `seqio_tasks` imports it inside its functions, and only `prepare` calls them.
"""
