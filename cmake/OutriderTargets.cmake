# Helpers that every target of the project goes through: warnings, sanitizers, the shared precompiled header.

# What the loops that decide the speed are compiled with in every configuration, sanitizers apart.
set(OUTRIDER_HOT_FLAGS -O3)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # g++ 12.2 crashes in this pass where the precompiled header was made at another level, as in Debug.
    list(APPEND OUTRIDER_HOT_FLAGS $<$<CONFIG:Debug>:-fno-ipa-cp>)
endif()
if(OUTRIDER_SANITIZERS)
    set(OUTRIDER_HOT_FLAGS)
endif()

# Private compile settings of the project's own targets.
function(outrider_settings target)
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wno-unknown-pragmas
                           $<$<BOOL:${OUTRIDER_WERROR}>:-Werror>)
    target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/src)  # private headers, "room/name.hpp"
    if(OUTRIDER_SANITIZERS)
        target_compile_options(${target} PRIVATE -fsanitize=${OUTRIDER_SANITIZERS} -fno-omit-frame-pointer
                               -fno-sanitize-recover=undefined)
        target_link_options(${target} PRIVATE -fsanitize=${OUTRIDER_SANITIZERS})
    endif()
    # Position-independent always: the archive may become part of a shared library or a plugin. The same flag for programs,
    # which could do with -fPIE, so that all share one precompiled header. What is not OUTRIDER_API is hidden.
    target_compile_options(${target} PRIVATE -fPIC -fvisibility=hidden -fvisibility-inlines-hidden
                           $<$<CXX_COMPILER_ID:GNU>:-fno-semantic-interposition>)
endfunction()

# fmt is a matter of our own bodies: in headers alone, so that nothing of it is asked of those who link them.
function(outrider_use_fmt target)
    if(TARGET fmt::fmt-header-only)
        target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:fmt::fmt-header-only>)
    endif()
endfunction()

# ATen costs 15 to 25 s a file without it. One precompiled header for every target that uses tensors.
function(outrider_use_aten target)
    outrider_settings(${target})
    outrider_use_fmt(${target})
    target_link_libraries(${target} PRIVATE outrider::torch)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND OUTRIDER_WERROR)
        # g++ 12 finds overflows in LibTorch's reference counts where it inlines them at -O3; there are none.
        target_compile_options(${target} PRIVATE -Wno-stringop-overflow)
    endif()
    target_compile_definitions(${target} PRIVATE OUTRIDER_COMPILED)  # as the precompiled header has it
    target_precompile_headers(${target} REUSE_FROM outrider_pch)
endfunction()

# outrider_test(name SOURCES ... [LINK ...] [ATEN] [THREADS] [LABELS ...]): one Catch2 program, one ctest. LINK names the
# rooms (outrider_formats, outrider_kernels, outrider_target, ...) whose bodies it needs, or outrider for all; THREADS
# marks what the thread sanitizer is for, which runs nothing else.
function(outrider_test name)
    cmake_parse_arguments(arg "ATEN;THREADS" "" "SOURCES;LINK;LABELS" ${ARGN})
    if((arg_ATEN AND NOT TARGET outrider::torch) OR (OUTRIDER_SANITIZERS STREQUAL "thread" AND NOT arg_THREADS))
        return()
    endif()
    add_executable(${name} ${arg_SOURCES})
    if(arg_ATEN)
        outrider_use_aten(${name})
    else()
        outrider_settings(${name})
        outrider_use_fmt(${name})
    endif()
    # What is tested is optimised in full; the tests around it compile in two thirds of the time.
    target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
    target_link_libraries(${name} PRIVATE outrider_core ${arg_LINK} Catch2::Catch2WithMain)
    target_compile_definitions(${name} PRIVATE OUTRIDER_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    set(test ${OUTRIDER_TEST_PREFIX}${name})
    add_test(NAME ${test} COMMAND ${name})
    set_tests_properties(${test} PROPERTIES LABELS "${arg_LABELS}" SKIP_RETURN_CODE 4)
    outrider_tidy_tests(${test})
endfunction()

# The tests named have a temporary folder of the build's, which must be empty when the last of them has ended.
function(outrider_tidy_tests)
    set(folder ${PROJECT_BINARY_DIR}/temporary)
    set(fixture ${OUTRIDER_TEST_PREFIX}temporary_folder)
    get_property(known GLOBAL PROPERTY OUTRIDER_TIDY)
    if(NOT known)
        set(script ${PROJECT_SOURCE_DIR}/tests/tidy.cmake)
        add_test(NAME ${fixture}.begins_empty COMMAND ${CMAKE_COMMAND} -DFOLDER=${folder} -DBEGIN=ON -P ${script})
        add_test(NAME ${fixture}.ends_empty COMMAND ${CMAKE_COMMAND} -DFOLDER=${folder} -P ${script})
        set_tests_properties(${fixture}.begins_empty PROPERTIES FIXTURES_SETUP ${fixture})
        set_tests_properties(${fixture}.ends_empty PROPERTIES FIXTURES_CLEANUP ${fixture})
        set_property(GLOBAL PROPERTY OUTRIDER_TIDY ON)
    endif()
    set_tests_properties(${ARGN} PROPERTIES FIXTURES_REQUIRED ${fixture} ENVIRONMENT_MODIFICATION TMPDIR=set:${folder})
endfunction()
