"""What pipelines call and are measured on: tools, encoders, benchmarks, embedded worlds."""
