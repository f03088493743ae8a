"""How a loss follows from rewards: one file per estimator, and the losses that stand beside it.

An estimator is a class with ``advantages`` and ``loss`` (``estimator.py``). A new one is a file in
this folder and its entry among the choices of ``config.py``: the learner asks for log-probs and
descends what comes back, whichever it is. The formulas are in ``advantage.py`` and ``loss.py``.
"""
