"""Behaviour: how well the predictions of a model agree with what its world allows and with the task it was given.

Every measure here reads a model through its predictions, as a `decoding.Predictor`, so that the true world and controls
are measured in the same way. Definitions follow Vafa et al. 2024, "Evaluating the world model implicit in a generative
model", arXiv:2406.03689, and Teoh et al. 2025, arXiv:2511.05963.
"""
