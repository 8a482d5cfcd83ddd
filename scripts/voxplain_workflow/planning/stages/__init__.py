"""Inputs and params of the rules: one module for each file of ``rules/``, with the same name.

Each module has a class whose methods take the wildcards of a job and return its inputs or params.
Values that are the same for all jobs of a rule are properties.
"""
