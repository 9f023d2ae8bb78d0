"""What one process counted, for Prometheus and OpenTelemetry."""
