"""What runs and measures the project: the notebooks' runner, plans, costs, benches."""
