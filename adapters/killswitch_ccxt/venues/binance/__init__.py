"""Binance: USD-M, COIN-M, spot and margin."""
