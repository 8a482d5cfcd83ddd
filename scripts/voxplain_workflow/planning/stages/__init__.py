"""What the rules of each stage depend on: one module for each file of ``rules/``, of the same name.

Each has a class whose methods take a job's wildcards and give its inputs or params; what is the
same for all jobs of a rule is a property.
"""
