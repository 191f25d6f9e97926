"""What MLflow is told. The only package that imports mlflow."""
