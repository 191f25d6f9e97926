"""Publishes run folders to MLflow. The only package that imports mlflow."""
