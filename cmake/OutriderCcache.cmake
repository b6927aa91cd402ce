# Compiles through ccache where there is one, unless the user said how to compile. The settings let it serve files that
# use the precompiled header, and share results between checkouts.
if(NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
    find_program(OUTRIDER_CCACHE ccache)
    if(OUTRIDER_CCACHE)
        set(CMAKE_CXX_COMPILER_LAUNCHER env
            CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
            CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} ${OUTRIDER_CCACHE})
    endif()
endif()
