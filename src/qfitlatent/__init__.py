"""qFitLatent: how protein side chains are distributed, learned from multiconformer structures.

Data flows one way: structure -> tables -> dataset -> model -> evaluation; nothing lower imports
anything higher. The workflow around it is the ``Snakefile`` at the root of the repository.
"""
