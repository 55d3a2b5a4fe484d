"""One module a stage, named as the stage; each has ``run(params, layout)``."""
