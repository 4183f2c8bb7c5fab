"""The files that run TensorFlow Serving itself: Docker, Compose with Prometheus and Grafana, Kubernetes, KServe."""
