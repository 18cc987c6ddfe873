"""The exercises of each lesson: modules ``lesson_NN``, each with ``EXERCISES`` and ``PREDICTIONS``.

In a lesson's notebook the cell that the student fills in has the tags ``exercise`` and the exercise's name; the next
cell checks it, ``checked = course.check("belief_update", belief_update)``, and later cells use ``checked.function``,
which is the solution until the student's own function passes.
"""
