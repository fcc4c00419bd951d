"""What people see of values: formats and charts. Imports nothing above the model."""
