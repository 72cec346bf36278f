"""matdarwin"""
