"""The paper venue: an exchange as one pure object, with matching, fees, margin and liquidation."""
