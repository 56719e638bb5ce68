"""Accuracy of models on suites: questions, who answers them, results that survive, figures and the report."""
