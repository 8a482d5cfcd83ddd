"""The folder of all results, which the plan and the frame of jobs share.

It stands apart from :mod:`voxplain_workflow.planning.layout`, so that a job need not import all
that the layout knows of networks and methods.
"""

RESULTS = "results"
