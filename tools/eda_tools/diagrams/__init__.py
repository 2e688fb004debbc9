"""Conversations and routes as trees and pictures."""
