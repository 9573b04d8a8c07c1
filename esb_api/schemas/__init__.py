"""What callers send and get, as pydantic models: validation and the OpenAPI document come from these alone."""
