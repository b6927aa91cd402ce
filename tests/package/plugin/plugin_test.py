#!/usr/bin/env python3
"""Loads the plugin as Python does, by ctypes.    plugin_test.py PLUGIN MODEL"""
import ctypes
import sys

plugin = ctypes.CDLL(sys.argv[1])
plugin.plugin_version.restype = ctypes.c_char_p
plugin.plugin_hidden.restype = ctypes.c_long
plugin.plugin_hidden.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
why = ctypes.create_string_buffer(512)
assert plugin.plugin_hidden(b"nowhere.gguf", why, len(why)) == -1 and b"nowhere.gguf" in why.value, why.value
width = plugin.plugin_hidden(sys.argv[2].encode(), why, len(why))
assert width > 0, why.value
print(f"outrider {plugin.plugin_version().decode()}: hidden states of {width}")
